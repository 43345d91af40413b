package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/repromill/repromill/estimators/job"
	"github.com/repromill/repromill/estimators/sku"
)

// prices gives the user's price of a GPU-hour, and the range of public pages
// where there is none. On-demand prices and those of owned GPUs never stand in
// for each other.
func (a *app) prices() (func(id string, terms sku.Terms) (sku.Price, bool), error) {
	type key struct {
		id    string
		terms sku.Terms
	}
	own := map[key]sku.Price{}
	for group, terms := range map[string]sku.Terms{"prices": sku.OnDemand, "prices_owned": sku.Owned} {
		for id, v := range a.cfg.Group(group) {
			usd, err := strconv.ParseFloat(v.Value, 64)
			if err != nil {
				return nil, usererrf("write USD per GPU-hour", "%s.%s is %q (%s)", group, id, v.Value, v.Source)
			}
			s, err := sku.Find(id)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.Source, err)
			}
			if own[key{s.ID, terms}], err = sku.UserPrice(s.ID, usd, terms, a.cfg.String("prices_as_of"), v.Source); err != nil {
				return nil, err
			}
		}
	}
	return func(id string, terms sku.Terms) (sku.Price, bool) {
		if p, ok := own[key{id, terms}]; ok {
			return p, true
		}
		return sku.DefaultPrice(id, terms)
	}, nil
}

// hostedPrices gives the price per token of a model: the user's where its file
// has the model, and that of a class of sizes otherwise.
func (a *app) hostedPrices() (func(model string, params float64) (sku.TokenPrice, bool), error) {
	own := map[string]sku.TokenPrice{}
	if file := a.expand(a.cfg.String("hosted_prices")); file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usererrf("correct hosted_prices in config.yaml", "cannot read token prices: %v", err)
		}
		defer f.Close()
		list, err := sku.ReadTokenPrices(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range list {
			k := strings.ToLower(p.Model)
			if old, ok := own[k]; !ok || p.Out < old.Out { // of several hosts the cheapest
				own[k] = p
			}
		}
	}
	return func(model string, params float64) (sku.TokenPrice, bool) {
		if p, ok := own[strings.ToLower(model)]; ok {
			return p, true
		}
		return sku.DefaultTokenPrice(params)
	}, nil
}

// costs is what estimates of plans are made with.
func (a *app) costs() (job.Config, error) {
	price, err := a.prices()
	if err != nil {
		return job.Config{}, err
	}
	hosted, err := a.hostedPrices()
	if err != nil {
		return job.Config{}, err
	}
	cal, err := a.calibration("")
	if err != nil {
		return job.Config{}, err
	}
	return job.Config{Calibration: cal, Price: price, Hosted: hosted, Now: a.now()}, nil
}
