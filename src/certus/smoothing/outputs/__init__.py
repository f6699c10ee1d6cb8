"""Smoothing of outputs that are no single class: real values, metric spaces, segmentations, detections."""

from certus.smoothing.outputs.center import Centers as Centers
from certus.smoothing.outputs.center import CenterSmoothing as CenterSmoothing
from certus.smoothing.outputs.detection import Detections as Detections
from certus.smoothing.outputs.detection import SmoothedDetection as SmoothedDetection
from certus.smoothing.outputs.detection import by_position as by_position
from certus.smoothing.outputs.detection import by_score as by_score
from certus.smoothing.outputs.detection import least_iou as least_iou
from certus.smoothing.outputs.median import Intervals as Intervals
from certus.smoothing.outputs.median import SmoothedRegression as SmoothedRegression
from certus.smoothing.outputs.median import Tolerances as Tolerances
from certus.smoothing.outputs.segmentation import Segments as Segments
from certus.smoothing.outputs.segmentation import SmoothedSegmentation as SmoothedSegmentation
