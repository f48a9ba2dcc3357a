"""``endolens listen``: a DICOM node that analyses what it is sent, and sends on what it found.

node.py          objects come in by C-STORE, over TLS where security.py says so,
poller.py        or are fetched by DICOMweb;
receiving.py     each is looked at, and on disk before it is acknowledged
store.py         the state folder and its database (tables.py): what is there, and what is to be done
work.py          each study is analysed, and its results are sent, until it is done
destinations.py  where to: STOW-RS or C-STORE
service.py       starts and ends all of them
"""
