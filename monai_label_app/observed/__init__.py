"""How a server is: ``checks.py`` looks, ``health.py`` tells, ``metrics.py`` counts, ``logs.py`` writes it down."""
