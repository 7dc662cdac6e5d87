"""The commands of loom-lab, one file each, imported when they are called."""
