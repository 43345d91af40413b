package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
)

func (a *app) cacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "What makes a second run fast, and how much room it takes",
		Args:  exactArgs(0, "no arguments"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.cacheListCmd(), a.cachePruneCmd())
	return cmd
}

// cacheList is what `cache list --json` prints.
type cacheList struct {
	Bytes int64        `json:"bytes"`
	Items []cache.Item `json:"items"`
	Notes []string     `json:"notes,omitempty"` // what could not be looked at
}

func (a *app) cacheListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List checkouts, downloads, environments, images and mirrors with their sizes and last use",
		Example: "  repromill cache list\n  repromill cache list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withCache(cmd.Context(), func(areas []cache.Area, notes []string) error {
				items, more := cacheItems(cmd.Context(), areas)
				notes = append(notes, more...)
				bytes, _ := cache.Total(items, "")
				if a.jsonOut {
					return a.printJSON(cacheList{bytes, items, notes})
				}
				a.printCache(items, notes)
				return nil
			})
		},
	}
}

// cacheItems lists every area; one that cannot be looked at does not hide the
// others.
func cacheItems(ctx context.Context, areas []cache.Area) (items []cache.Item, notes []string) {
	items = []cache.Item{}
	for _, area := range areas {
		list, err := area.Items(ctx)
		if err != nil {
			notes = append(notes, area.Name()+": "+err.Error())
		}
		items = append(items, list...)
	}
	slices.SortStableFunc(items, func(x, y cache.Item) int { return y.Used.Compare(x.Used) })
	return items, notes
}

func (a *app) printCache(items []cache.Item, notes []string) {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, it := range items {
		used := "–"
		if !it.Used.IsZero() {
			used = ago(a.now().Sub(it.Used))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", it.Area, cache.Size(it.Bytes), used, clean(it.Name), clean(it.InUse))
	}
	bytes, _ := cache.Total(items, "")
	fmt.Fprintf(w, "total\t%s\t\t\t\n", cache.Size(bytes))
	w.Flush()
	for _, n := range notes {
		fmt.Fprintln(a.stderr, "not looked at: "+clean(n))
	}
}

func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d d ago", int(d.Hours()/24))
}

// cachePruned is what `cache prune --json` prints.
type cachePruned struct {
	Before  int64    `json:"bytes_before"`
	After   int64    `json:"bytes_after"`
	Removed int64    `json:"removed"`
	Kept    int      `json:"in_use"` // things that stayed because something needs them
	Notes   []string `json:"notes,omitempty"`
}

func (a *app) cachePruneCmd() *cobra.Command {
	var keep string
	var dry bool
	cmd := &cobra.Command{
		Use:   "prune --keep SIZE",
		Short: "Remove what was used longest ago until the rest fits into SIZE",
		Long: `Remove checkouts, downloads, environments and images that were used longest ago
until the rest fits into SIZE. All of it can be made again. What an unfinished run
needs is never removed, and mirrors are yours: they are listed and left alone.`,
		Example: "  repromill cache prune --keep 20GB\n  repromill cache prune --keep 0 --dry-run",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("keep") {
				return usererrf("add --keep with a size such as 20GB, or 0 to remove all that is not in use", "prune needs to know how much may stay")
			}
			size, err := cache.ParseSize(keep)
			if err != nil {
				return usererrf("write it like 20GB, 512MiB or 0", "--keep: %v", err)
			}
			return a.withCache(cmd.Context(), func(areas []cache.Area, notes []string) error {
				return a.prune(cmd.Context(), areas, notes, size, dry)
			})
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "how much may stay, such as `20GB`")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would go, and remove nothing")
	return cmd
}

func (a *app) prune(ctx context.Context, areas []cache.Area, notes []string, keep int64, dry bool) error {
	items, more := cacheItems(ctx, areas)
	notes = append(notes, more...)
	var out cachePruned
	out.Before, _ = cache.Total(items, "")
	budget := cache.Budget(items, keep)
	for _, it := range items {
		if it.InUse != "" {
			out.Kept++
		}
	}
	out.After = out.Before
	for _, area := range areas {
		bytes, n := cache.Total(items, area.Name())
		if n == 0 || budget[area.Name()] >= bytes {
			continue
		}
		if dry {
			out.After -= bytes - budget[area.Name()]
			continue
		}
		removed, err := area.Keep(ctx, budget[area.Name()])
		out.Removed += removed
		if err != nil {
			return fmt.Errorf("prune %s: %w", area.Name(), err)
		}
	}
	if !dry {
		left, _ := cacheItems(ctx, areas)
		out.After, _ = cache.Total(left, "")
	}
	out.Notes = notes
	if a.jsonOut {
		return a.printJSON(out)
	}
	verb := "freed"
	if dry {
		verb = "would free"
	}
	fmt.Fprintf(a.stdout, "%s %s; %s are left\n", verb, cache.Size(max(0, out.Before-out.After)), cache.Size(out.After))
	if out.Kept > 0 {
		fmt.Fprintf(a.stdout, "%d things stay because something needs them; `repromill cache list` says what\n", out.Kept)
	}
	for _, n := range notes {
		fmt.Fprintln(a.stderr, "not looked at: "+clean(n))
	}
	return nil
}
