"""For tests of drivers, ours and those of others: what a driver has to do, as tests that pytest runs.

    driver_suite.py   the tests: subclass `DriverSuite`, and name the driver
    everything.py     layers with every kind of file and of change, and what is to come of them
    trees.py          all that is on disk of a tree, to be compared

Only the first needs pytest; `pytest.register_assert_rewrite("layerhold.testing.driver_suite")` in a conftest.py has it
show what was compared.
"""
