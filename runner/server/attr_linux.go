package server

import "syscall"

// ownGroup is a process group of its own, whose first process dies with the
// thread that started it.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
