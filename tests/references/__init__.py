"""Reference values for the examples, computed without vdsl: enumeration, transfer matrices, formulas."""
