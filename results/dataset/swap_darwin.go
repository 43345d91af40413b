package dataset

import "golang.org/x/sys/unix"

// swapFolders exchanges two folders in one step.
func swapFolders(a, b string) error {
	return unix.RenameatxNp(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_SWAP)
}
