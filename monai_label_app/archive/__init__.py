"""``endolens analyze --query``: an archive, study by study, by this process or by workers on a Ray cluster.

run.py      top to bottom: which studies there are, each done, what came of it
query.py    which studies are asked for
ledger.py   what is to be done, what is done, and what failed, on disk
work.py     one study: fetched, analysed, its results stored
cluster.py  hands studies to workers, each with the model in its memory
"""
