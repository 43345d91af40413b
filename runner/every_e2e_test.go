//go:build e2e

package runner_test

// everyStep makes the kill tests strike at every durable step.
const everyStep = true
