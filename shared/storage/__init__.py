"""Local disks and object stores behind one small interface."""
