"""What image analysis measures of a lesion by the ABC rule, and whether captions agree with it."""
