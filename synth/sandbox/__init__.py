"""Programs that nobody trusts, run against tests: what they may use is limited, and what they say is not believed.

    fork server   a process of its own (server.py): everything is imported, the root of its files is a jail
      tester      a fork for one problem (tester.py): runs its tests, compares values, decides (remote.py: by what)
      nursery     a fork made before the first test was known (nursery.py): forks programs, and knows nothing else
        program   a fork for one execution, alone in its namespaces (program.py): only computes what it is called with

The program never sees a test, an expected value or the channel of the verdict, in whatever memory it looks; it is sent
calls and sends values.
"""
