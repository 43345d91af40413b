//go:build !linux

package supervisor

// Main exists on Linux only, where containers run.
func Main() int { return 2 }
