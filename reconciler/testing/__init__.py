"""Conformance tests for plug-ins: what a platform or a grouping strategy has to keep to.

    python -m reconciler.testing --platform my_module:make
    python -m reconciler.testing --strategy my_module:make

or, in tests of your own, by a subclass of `platform.PlatformConformance` or `grouping.GroupingConformance`. They need
pytest, and the ones for strategies a development ksqlDB; the operator itself imports none of this.
"""
