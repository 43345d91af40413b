//go:build !e2e

package runner_test

// everyStep is off here: `make e2e` strikes at every durable step.
const everyStep = false
