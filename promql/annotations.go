package promql

import "fmt"

// formatOmitted is Prometheus's last line of a cut list of annotations.
func formatOmitted(n int, kind string) string {
	return fmt.Sprintf("%d more %s annotations omitted", n, kind)
}
