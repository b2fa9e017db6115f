"""Events about groups, and the folds that turn them into state: pure Python."""
