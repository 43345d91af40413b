package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func (a *app) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the settings and where each comes from"}
	cmd.AddCommand(&cobra.Command{
		Use:   "show",
		Short: "Print every setting, its value and its source",
		Long: `Print every setting, its value and its source: a flag, an environment variable,
a line of the configuration file, or the default. The file is
$XDG_CONFIG_HOME/repromill/config.yaml, or what REPROMILL_CONFIG names:

  endpoints: {hf: https://hub.example.org}
  indexes:   {url: https://pypi.example.org/simple}
  prices:    {h200: 3.50, b200: 5.20}      # USD per GPU-hour
  caps:      {usd: 20, wall: 2h}`,
		Example: "  repromill config show\n  repromill config show --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if a.jsonOut {
				return a.printJSON(map[string]any{"file": a.cfg.File, "settings": a.cfg.All()})
			}
			fmt.Fprintf(a.stdout, "file: %s\n\n", a.cfg.File)
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "SETTING\tVALUE\tSOURCE\tMEANING")
			for _, v := range a.cfg.All() {
				value := v.Value
				if value == "" {
					value = "-"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Key, value, v.Source, v.Help)
			}
			return w.Flush()
		},
	})
	return cmd
}
