package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
)

// Attachment returns a file that was kept beside a run's manifest, checked
// against its hash. An unknown name is an error that is [fs.ErrNotExist].
func (d *Dataset) Attachment(runID, name string) ([]byte, error) {
	m, err := d.Manifest(runID)
	if err != nil {
		return nil, err
	}
	for _, a := range m.Attachments {
		if a.Name != name {
			continue
		}
		b, err := os.ReadFile(d.abs(a.Path))
		if err != nil {
			return nil, fmt.Errorf("read attachment: %w", err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != a.SHA256 {
			return nil, &CorruptError{Path: d.abs(a.Path), Reason: "its hash is not the one in the manifest"}
		}
		return b, nil
	}
	return nil, fmt.Errorf("run %s has no attachment %q: %w", runID, name, fs.ErrNotExist)
}
