"""ATen operations to Graph operations: the modules whose import fills the table of builders."""

import certus.graph.aten_activation
import certus.graph.aten_arithmetic
import certus.graph.aten_compare
import certus.graph.aten_complex
import certus.graph.aten_layers
import certus.graph.aten_linear
import certus.graph.aten_move
import certus.graph.aten_pool
import certus.graph.aten_reduce
import certus.graph.aten_scatter
import certus.graph.aten_shape
import certus.graph.aten_step  # noqa: F401
