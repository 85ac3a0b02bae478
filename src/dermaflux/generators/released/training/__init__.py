"""Nothing is trained; the stage `finetune` says so."""
