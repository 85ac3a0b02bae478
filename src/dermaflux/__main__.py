"""`python -m dermaflux`, which is what `accelerate launch -m dermaflux finetune` starts."""

from dermaflux.cli import main

main()
