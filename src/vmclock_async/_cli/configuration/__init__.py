"""The configuration of ``publish``: one file, variables, ``--set``, and the command's own words over it.

``tables`` has the keys with their types and defaults. ``layers`` reads the places where a value may be from, ``keys``
refuses keys that are not there, and ``settings`` lays one place over the other. ``choice`` makes the sources,
``effective`` shows all of it, and ``schema`` describes it to editors. Only ``publish`` imports this, when it runs.
"""
