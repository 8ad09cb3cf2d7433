-- Answers 413, and takes what the client is still sending. HAProxy's own answer would cancel a stream
-- of HTTP/2 whose body goes on, and clients throw away an answer that is followed by that.

-- Who sends more than this after the answer is cut off.
local MOST = 64 * 1024 * 1024
local PAGE = "The body is larger than proxy-body-size.\n"

core.register_service("too-large", "http", function(applet)
    applet:set_status(413)
    applet:add_header("content-type", "text/plain")
    applet:add_header("content-length", tostring(#PAGE))
    applet:start_response()
    applet:send(PAGE)
    local taken = 0
    while taken < MOST do
        local piece = applet:receive(16384)
        if not piece or #piece == 0 then
            return
        end
        taken = taken + #piece
    end
end)
