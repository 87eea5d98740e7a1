"""What runs in the zygote and in the child: standard library and the user's code only."""
