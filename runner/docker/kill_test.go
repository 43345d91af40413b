//go:build linux

package docker

func submitAndDie(dir, point, work string) int { return 1 }
