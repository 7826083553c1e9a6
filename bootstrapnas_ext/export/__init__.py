"""A plain module to ONNX and OpenVINO IR, verified."""

from bootstrapnas_ext.export.files import FORMATS as FORMATS
from bootstrapnas_ext.export.files import ExportedSubnet as ExportedSubnet
from bootstrapnas_ext.export.files import export_subnet as export_subnet
from bootstrapnas_ext.export.names import input_names as input_names
from bootstrapnas_ext.export.names import output_tensors as output_tensors
from bootstrapnas_ext.export.onnx import to_onnx as to_onnx
from bootstrapnas_ext.export.openvino import save_ir as save_ir
from bootstrapnas_ext.export.openvino import to_openvino as to_openvino
from bootstrapnas_ext.export.verify import Backend as Backend
from bootstrapnas_ext.export.verify import Difference as Difference
from bootstrapnas_ext.export.verify import VerificationReport as VerificationReport
from bootstrapnas_ext.export.verify import verification_inputs as verification_inputs
from bootstrapnas_ext.export.verify import verify as verify
