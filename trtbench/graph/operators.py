"""Which operators and types of constants TensorRT's ONNX parser takes. Facts, no rules.

They are what docs/operators.md and onnxOpImporters.cpp of TensorRT 10.1's parser (onnx-tensorrt, public) and the parser
of TensorRT-RTX 1.7 say alike; `tests/rtx` asks the latter again.
"""

from __future__ import annotations

from onnx import TensorProto

# Of ONNX's own operators. DeformConv is not among them: TensorRT 10 has a plugin for it, TensorRT-RTX has none.
WITHOUT_IMPORTER = frozenset(
    (  # noqa: SIM905  forty-five names, one a line, would read no better
        "AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im "
        "Compress ConcatFromSequence ConvInteger CumProd DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger "
        "MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement "
        "OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty "
        "SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat "
        "StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique"
    ).split()
)
WITHOUT_BF16 = frozenset({"GlobalLpPool", "HardSwish", "LpNormalization", "Mish"})
CONSTANT_TYPES = frozenset(
    {
        TensorProto.BFLOAT16,
        TensorProto.BOOL,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.FLOAT4E2M1,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.INT32,
        TensorProto.INT4,
        TensorProto.INT64,
        TensorProto.INT8,
        TensorProto.UINT8,
    }
)
