package spec

import "fmt"

// Diff shows a patch of a file as a unified diff without context; it is empty
// for one of flags or of the environment, which changes no file.
func (p Patch) Diff() string {
	if p.File == "" || p.Line < 1 || p.Kind == "flag" || p.Kind == "env" {
		return ""
	}
	return fmt.Sprintf("--- a/%s\n+++ b/%s\n@@ -%d +%d @@\n-%s\n+%s\n", p.File, p.File, p.Line, p.Line, p.Before, p.After)
}
