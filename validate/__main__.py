"""`python -m moeplan.validate`: the same as `moeplan validate`."""

from moeplan.validate.cli import validate

if __name__ == "__main__":
    validate(prog_name="moeplan validate")
