"""How fast and how small: `python -m benchmarks` prints a table and writes the numbers as JSON.

Each group first measures a bound (what this machine could do at all), then the engine. What is
compared runs in one process, by turns, best of several; every answer is compared with one that was
computed without the library, so that nothing wrong can be fast.
"""
