"""Time travel: the state at an earlier moment, by the same folds, over stored snapshots and the events since."""
