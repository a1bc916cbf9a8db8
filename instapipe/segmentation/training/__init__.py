"""Training of the compact Mask R-CNN: photos and COCO masks in, a weights folder and its accuracy out."""
