// Package proctest runs real programs in tests: ours, built once for a test binary,
// and Prometheus's, as `make prometheus promtool` installs them. Processes end with
// the test that started them. Only tests import it.
package proctest
