package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// A client with one connection.
type caller struct {
	client http.Client
	url    string
}

func newCaller(address string) *caller {
	return &caller{http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}, "http://" + address}
}

// Calls a path with a body as JSON.
func (c *caller) call(path string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("content-type", "application/json")
	request.Header.Set("authorization", "Bearer "+os.Getenv("API_TOKEN"))
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	return text, err
}

// The API of the cluster as JSON over HTTP, with a session for each worker, which lives for ten minutes.
func crossdock(address, lock string) (contender, error) {
	caller := newCaller(address)
	text, err := caller.call("/v1/sessions/open", []byte(`{"ttlMs":"600000"}`))
	if err != nil {
		return contender{}, err
	}
	var opened struct {
		Session string `json:"session"`
	}
	if err := json.Unmarshal(text, &opened); err != nil {
		return contender{}, err
	}
	number := 0
	return contender{func(granted func()) error {
		number++
		request := fmt.Sprintf(`{"session":%q,"number":"%d"`, opened.Session, number)
		acquire := fmt.Sprintf(`%s,"claims":[{"lock":%q}],"waitMs":"60000"}`, request, lock)
		if _, err := caller.call("/v1/locks/acquire", []byte(acquire)); err != nil {
			return err
		}
		granted()
		_, err := caller.call("/v1/locks/release", []byte(request+"}"))
		return err
	}, func() { caller.call("/v1/sessions/close", []byte(fmt.Sprintf(`{"session":%q}`, opened.Session))) }}, nil
}

// A route that answers while it holds the lock, or the same route without the lock.
func route(path string) func(address, lock string) (contender, error) {
	return func(address, lock string) (contender, error) {
		caller := newCaller(address)
		body := []byte(fmt.Sprintf(`{"name":%q}`, lock))
		return contender{func(granted func()) error {
			_, err := caller.call(path, body)
			granted()
			return err
		}, func() {}}, nil
	}
}
