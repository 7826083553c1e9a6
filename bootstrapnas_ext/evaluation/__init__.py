"""What a subnet is worth: accuracy on data, latency with OpenVINO."""

from bootstrapnas_ext.evaluation.accuracy import top1_accuracy as top1_accuracy
from bootstrapnas_ext.evaluation.batchnorm import has_norm_statistics as has_norm_statistics
from bootstrapnas_ext.evaluation.batchnorm import recalibrate_batchnorm as recalibrate_batchnorm
from bootstrapnas_ext.evaluation.latency import LatencyRecord as LatencyRecord
from bootstrapnas_ext.evaluation.latency import Workload as Workload
from bootstrapnas_ext.evaluation.latency import measure_latencies as measure_latencies
from bootstrapnas_ext.evaluation.latency import measure_latency as measure_latency
from bootstrapnas_ext.evaluation.latency import measure_workloads as measure_workloads
from bootstrapnas_ext.evaluation.latency import to_workload as to_workload
