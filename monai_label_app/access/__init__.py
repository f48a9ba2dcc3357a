"""Who may do what: ``roles.py`` has the table of routes, ``identity.py`` finds out who asks, ``login.py`` logs in."""
