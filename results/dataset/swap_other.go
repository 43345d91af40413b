//go:build !linux && !darwin

package dataset

import "errors"

// swapFolders exchanges two folders in one step, which this system cannot.
func swapFolders(_, _ string) error { return errors.ErrUnsupported }
