// Package grid evaluates a storage.Grid over columns of samples: one function over the windows of each series, then
// aggregations over groups of series. It knows nothing of databases, blocks or labels: series come as slices of times and
// values with the number of their group, and labels are asked for when the result is written.
//
// The answer is that of storage.EvaluateSeries. Each window's value has the very bits of storage.EvalWindow, and so has
// each aggregate as long as the work is one chunk. Several chunks are accumulated apart and joined in their order:
// the answer does not depend on the number of workers or on who was first, and sums, averages and variances stay within
// 1e-12 of the sum of the absolute values.
//
// Memory is bounded: cells (group × step) of the answer and of the chunks at work, the values behind a quantile and
// the candidates of topk are taken from one Budget.
package grid
