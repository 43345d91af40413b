package cli

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// failpoint returns the hook that every durable step calls. With
// REPROMILL_FAIL_LOG=FILE each step's name is appended to FILE; with
// REPROMILL_FAIL_AT=N the process kills itself at the N-th step. Both serve
// the tests of crash safety; without them the hook is nil.
//
// All parts of the program count together, so that every step has a number.
func (a *app) failpoint() func(string) {
	a.hookOnce.Do(func() { a.hook = a.newFailpoint() })
	return a.hook
}

func (a *app) newFailpoint() func(string) {
	at, _ := strconv.ParseInt(a.env["REPROMILL_FAIL_AT"], 10, 64)
	log := a.env["REPROMILL_FAIL_LOG"]
	if at == 0 && log == "" {
		return nil
	}
	var n atomic.Int64
	return func(point string) {
		i := n.Add(1)
		if log != "" {
			if f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
				fmt.Fprintf(f, "%d %s\n", i, point)
				f.Close()
			}
		}
		if i == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
}
