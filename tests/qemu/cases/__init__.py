"""The cases of tests/qemu/test_matrix.py."""
