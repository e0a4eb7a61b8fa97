"""Conformance tests for plug-ins: the rules that every platform and every grouping strategy must follow.

    python -m reconciler.testing --platform my_module:make
    python -m reconciler.testing --strategy my_module:make

or, in your own tests, a subclass of `platform.PlatformConformance` or `grouping.GroupingConformance`. They need pytest,
and those for strategies a development ksqlDB; the operator itself imports none of this.
"""
