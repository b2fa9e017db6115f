"""The facts about groups and the rules that turn them into state: plain, pure Python."""
