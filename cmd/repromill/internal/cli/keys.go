package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

func (a *app) keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "API keys of the server: create, list, revoke",
		Long: `A key says who asks a server and what he may do: read, submit, approve, admin.
The secret is shown once; only its hash is kept.`,
	}
	cmd.AddCommand(a.keysCreateCmd(), a.keysListCmd(), a.keysRevokeCmd())
	return cmd
}

// keyShown is a key as `keys --json` prints it.
type keyShown struct {
	ID string `json:"id"`
	access.Grant
	State   string    `json:"state"` // valid|expired|revoked
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Token   string    `json:"token,omitempty"` // when it is made, and never again
}

func (a *app) keysCreateCmd() *cobra.Command {
	var g access.Grant
	var expires string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a key and print it once",
		Example: `  repromill keys create --name ci --scope submit,approve --queue local --gpu-hours-per-day 8
  repromill keys create --name dashboards --scope read --expires 365d
  repromill keys create --name me --scope admin --json`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			until, err := keyEnd(expires, a.now())
			if err != nil {
				return err
			}
			return a.withStack(cmd.Context(), func(st *stack) error {
				token, k, err := access.New(cmd.Context(), st.store, rand.Reader, g, until, store.Audit{Actor: "command line"})
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printJSON(keyShown{ID: k.ID, Grant: g, State: "valid", Expires: until, Token: token})
				}
				fmt.Fprintln(a.stdout, token)
				fmt.Fprintf(a.stderr, "key %s for %s; it is not shown again\n", k.ID, clean(g.Name))
				return nil
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&g.Name, "name", "", "`NAME` of whoever holds it")
	fl.StringSliceVar(&g.Scopes, "scope", nil, "what it may do: "+strings.Join(access.Scopes(), ", "))
	fl.StringSliceVar(&g.Queues, "queue", nil, "queues that it may submit to (all)")
	fl.Float64Var(&g.MaxGPUHours, "max-gpu-hours", 0, "most GPU-hours of one run")
	fl.Float64Var(&g.MaxUSD, "max-usd", 0, "most money of one run")
	fl.Float64Var(&g.GPUHoursPerDay, "gpu-hours-per-day", 0, "most GPU-hours within 24 hours")
	fl.IntVar(&g.RequestsPerMinute, "requests-per-minute", 0, "most requests (600)")
	fl.StringVar(&expires, "expires", "90d", "when it ends: `TIME` such as 90d, 12h or never")
	return cmd
}

// keyEnd is when a key ends; zero is never.
func keyEnd(text string, now time.Time) (time.Time, error) {
	if text == "never" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * 24 * float64(time.Hour))
	}
	if err != nil || d <= 0 || d > 100*365*24*time.Hour {
		return time.Time{}, usererrf("give a time such as 90d or 12h, or never", "--expires %q is no length of time", text)
	}
	return now.Add(d).Truncate(time.Second), nil
}

func (a *app) withStack(ctx context.Context, do func(*stack) error) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	return do(st)
}

func (a *app) keysListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the keys and what they may do",
		Example: "  repromill keys list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStack(cmd.Context(), func(st *stack) error {
				keys, err := st.store.Keys(cmd.Context())
				if err != nil {
					return err
				}
				list := []keyShown{}
				for _, k := range keys {
					x := keyShown{ID: k.ID, State: "valid", Created: k.Created, Expires: k.Expires}
					if _, err := access.Of(k, a.now()); err != nil {
						x.State = map[bool]string{true: "expired", false: "revoked"}[k.Revoked.IsZero()]
					}
					if err := json.Unmarshal(k.Grant, &x.Grant); err != nil {
						return fmt.Errorf("read grant of key %s: %w", k.ID, err)
					}
					list = append(list, x)
				}
				if a.jsonOut {
					return a.printJSON(list)
				}
				a.printKeys(list)
				return nil
			})
		},
	}
}

func (a *app) printKeys(list []keyShown) {
	if len(list) == 0 {
		fmt.Fprintln(a.stdout, "there are no keys; `repromill keys create` makes one")
		return
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tNAME\tSTATE\tMAY\tQUEUES\tENDS")
	for _, k := range list {
		ends := "never"
		if !k.Expires.IsZero() {
			ends = k.Expires.UTC().Format("2006-01-02")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, clean(k.Name), k.State, strings.Join(k.Scopes, ","), firstOf(strings.Join(k.Queues, ","), "all"), ends)
	}
	w.Flush()
}

func (a *app) keysRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a key and its sessions at once",
		Example: "  repromill keys revoke 4f9k2m1z",
		Args:    exactArgs(1, "the id of a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStack(cmd.Context(), func(st *stack) error {
				err := st.store.RevokeKey(cmd.Context(), args[0], store.Audit{Actor: "command line", Action: "key.revoke", Subject: args[0]})
				if errors.Is(err, store.ErrNotFound) {
					return usererrf("`repromill keys list` lists them", "there is no key %q", args[0])
				}
				if err != nil {
					return err
				}
				if a.jsonOut {
					return a.printJSON(map[string]string{"id": args[0], "state": "revoked"})
				}
				fmt.Fprintf(a.stdout, "key %s is revoked\n", clean(args[0]))
				return nil
			})
		},
	}
}
