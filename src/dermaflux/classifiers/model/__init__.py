"""Networks by timm's names, their pretrained weights, image-text models."""
