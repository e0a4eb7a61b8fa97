"""The program: ``python -m reconciler``, and ``reconciler`` where the package is installed."""

from openfactory_common.signals import SIGNALS


def main() -> int:
    """Run the command line; signals are handled from the first moment on."""
    SIGNALS.install()
    from reconciler.cli.main import main as run  # noqa: PLC0415 - half a second, in which a signal would be lost

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
