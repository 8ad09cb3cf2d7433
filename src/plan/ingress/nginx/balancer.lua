-- Who answers, inside nginx. Endpoints live in a shared dictionary, which all workers see and which
-- outlives a reload, so that pods come and go without one. It is set over a Unix socket.
--
-- The dictionary holds "backend NAME" (a line "HOST PORT" for each endpoint), "backends" (their
-- names), "version" (counts changes) and "closing" (when a reload was announced).

local balancer = require "ngx.balancer"

local dict = ngx.shared.endpoints
local M = {}

-- What this worker has read of the dictionary since it last changed.
local known, version = {}, nil
-- Whose turn it is, by backend: kept when endpoints change.
local turns = {}
-- When this worker began.
local began = 0

local function read(backend)
    local now = dict:get("version")
    if now ~= version then
        known, version = {}, now
    end
    local list = known[backend]
    if list then
        return list
    end
    list = { by_id = {} }
    for host, port in string.gmatch(dict:get("backend " .. backend) or "", "(%S+) (%d+)\n") do
        local peer = { host = host, port = tonumber(port), id = ngx.md5(host .. ":" .. port) }
        list[#list + 1] = peer
        list.by_id[peer.id] = peer
    end
    known[backend] = list
    return list
end

-- Take "NAME HOST PORT" lines as all the endpoints there are. Answers what is wrong, if anything.
local function load(text)
    local texts, names = {}, {}
    for backend, host, port in string.gmatch(text, "(%S+) (%S+) (%d+)\n") do
        if not texts[backend] then
            texts[backend] = {}
            names[#names + 1] = backend
        end
        table.insert(texts[backend], host .. " " .. port .. "\n")
    end
    local before = dict:get("backends") or ""
    for _, backend in ipairs(names) do
        local ok, why = dict:safe_set("backend " .. backend, table.concat(texts[backend]))
        if not ok then
            return why
        end
    end
    for backend in string.gmatch(before, "%S+") do
        if not texts[backend] then
            dict:delete("backend " .. backend)
        end
    end
    local ok, why = dict:safe_set("backends", table.concat(names, " "))
    if not ok then
        return why
    end
    dict:incr("version", 1, 0)
end

-- Before the first worker: nobody is to be told that there are no endpoints only because the
-- dictionary is still empty.
function M.init(path)
    local file = not dict:get("version") and io.open(path)
    if file then
        load(file:read("*a"))
        file:close()
    end
end

function M.begin()
    ngx.update_time()
    began = ngx.now()
    math.randomseed(began * 1000 + ngx.worker.pid())
end

-- Access phase: 503 where nobody serves. A worker that is about to be replaced asks its clients to
-- come again over a new connection, as nginx closes idle ones without looking for a request on them.
function M.admit(backend)
    local closing = dict:get("closing")
    if closing and closing >= began and ngx.req.http_version() < 2 and not ngx.var.http_upgrade then
        ngx.header["Connection"] = "close"
    end
    if #read(backend) == 0 then
        return ngx.exit(503)
    end
end

local function next_of(list, backend, tried)
    local turn = turns[backend] or math.random(#list)
    for _ = 1, #list do
        turn = turn % #list + 1
        if not tried[list[turn].id] then
            break
        end
    end
    turns[backend] = turn
    return list[turn]
end

-- Balancer phase: once for each try. `tries` 0: as many as there are endpoints.
function M.choose(backend, tries, cookie, change_on_failure)
    local list = read(backend)
    if #list == 0 then
        return
    end
    local ctx, peer = ngx.ctx, nil
    if not ctx.tried then
        ctx.tried = {}
        local more = (tries == 0 and #list or tries) - 1
        if more > 0 then
            balancer.set_more_tries(more)
        end
    end
    local failed = balancer.get_last_failure() ~= nil
    if cookie and not (failed and change_on_failure) then
        peer = list.by_id[ngx.var["cookie_" .. cookie] or ""]
    end
    if not peer then
        peer = next_of(list, backend, ctx.tried)
        ctx.cookie = cookie and peer.id
    end
    ctx.tried[peer.id] = true
    local ok, why = balancer.set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "endpoint ", peer.host, ":", peer.port, " of ", backend, ": ", why)
    end
end

-- Header filter: tell a new client who answered it.
function M.stick(cookie, attributes)
    local id = ngx.ctx.cookie
    if not id then
        return
    end
    local secure = ngx.var.scheme == "https" and not string.find(attributes, "; Secure", 1, true)
    local new = cookie .. "=" .. id .. attributes .. (secure and "; Secure" or "")
    local all = ngx.header["Set-Cookie"]
    if type(all) == "table" then
        table.insert(all, new)
    else
        all = all and { all, new } or new
    end
    ngx.header["Set-Cookie"] = all
end

-- What the controller asks over the Unix socket.
function M.control()
    local what = ngx.var.uri
    if what == "/endpoints" then
        ngx.req.read_body()
        local why = load(ngx.req.get_body_data() or "")
        if why then
            ngx.status = 507
            return ngx.say("endpoints do not fit: ", why)
        end
    elseif what == "/closing" then
        ngx.update_time()
        dict:set("closing", ngx.now())
    elseif what == "/open" then
        dict:delete("closing")
    elseif what ~= "/state" then
        return ngx.exit(404)
    end
    local closing = dict:get("closing")
    local state = closing and closing >= began and "closing" or "open"
    ngx.say(state, " ", ngx.var.connections_waiting or "?")
end

return M
