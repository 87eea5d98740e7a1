"""What a forkserver imports for the plain pools: the image, loaded, and then frozen."""

from benchmarks.peers import blocking_job

blocking_job.image.preload()

from benchmarks.images import freeze  # noqa: E402, F401
