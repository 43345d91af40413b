//go:build !linux

package server

import "syscall"

// ownGroup is a process group of its own. Without Linux nothing ends it when its
// supervisor is killed.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
