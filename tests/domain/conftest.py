from hypothesis import Phase, settings

# For `make mutants`: always the same examples, and the first failure is enough.
settings.register_profile("mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
