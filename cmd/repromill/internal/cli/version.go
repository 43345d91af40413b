package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what `version --json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"`
	Built    string `json:"built"` // time of the commit, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// releaseVersion and releaseCommit are set by the linker in release builds,
// which are built without version control.
var (
	releaseVersion string
	releaseCommit  string
)

func buildVersion() versionInfo {
	v := versionInfo{Version: "devel", Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if bi, ok := debug.ReadBuildInfo(); ok {
		if bi.Main.Version != "" && bi.Main.Version != "(devel)" {
			v.Version = bi.Main.Version
		}
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			case "vcs.time":
				v.Built = s.Value
			}
		}
	}
	if releaseVersion != "" {
		v.Version = releaseVersion
	}
	if releaseCommit != "" {
		v.Commit = releaseCommit
	}
	return v
}

// createdBy goes into every plan and result.
func createdBy() string {
	v := buildVersion()
	return "repromill " + v.Version + " (" + v.Commit[:min(12, len(v.Commit))] + ")"
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version and build information",
		Example: "  repromill version --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if a.jsonOut {
				return a.printJSON(v)
			}
			fmt.Fprintf(a.stdout, "repromill %s (commit %s, %s, %s)\n", v.Version, v.Commit, v.Go, v.Platform)
			return nil
		},
	}
}
